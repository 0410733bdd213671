//! The console's words in English and Russian, one line a text. Pages name them by key.
//!
//! Deliberately absent: what comes from elsewhere, such as the compiler's messages and names, which stays as it is.

use axum::http::{HeaderMap, header};

/// The cookie by which somebody keeps a language.
pub(super) const COOKIE: &str = "sidegate_language";

/// A language that there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    English,
    Russian,
}

impl Language {
    /// As BCP 47 has it.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Russian => "ru",
        }
    }

    pub(super) fn of_code(code: &str) -> Option<Self> {
        [Self::English, Self::Russian].into_iter().find(|language| language.code() == code)
    }

    /// What was chosen, or else what the browser asks for first of what there is.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs = cookies.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let chosen = pairs.find(|(name, _)| *name == COOKIE).and_then(|(_, code)| Self::of_code(code));
        let accepted = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let asked = accepted.split(',').filter_map(|one| Self::of_code(one.trim().get(..2)?)).next();
        chosen.or(asked).unwrap_or(Self::English)
    }

    /// The text of a key.
    pub(super) fn text(self, key: &str) -> &'static str {
        let found = WORDS.iter().find(|(known, ..)| *known == key);
        match (found, self) {
            (Some((_, english, _)), Self::English) => english,
            (Some((_, _, russian)), Self::Russian) => russian,
            // A test finds it; nobody is to see an error for it.
            (None, _) => "",
        }
    }
}

/// Key, English, Russian.
#[rustfmt::skip]
const WORDS: &[(&str, &str, &str)] = &[
    ("skip", "Skip to the content", "К содержанию"),
    ("navigation", "Pages", "Страницы"),
    ("language", "Language", "Язык"),
    ("services", "Services", "Сервисы"),
    ("access", "Access", "Доступ"),
    ("decisions", "Decisions", "Решения"),
    ("issuer", "Issuer", "Издатель"),
    ("benchmark", "Benchmark", "Замеры"),
    ("sign-in", "Sign in", "Войти"),
    ("sign-in-how", "Open the one-time link that this console has written for you. Each link signs one browser in.", "Откройте одноразовую ссылку, которую записала для вас консоль. Каждая ссылка впускает один браузер."),
    ("sign-in-token-how", "Sign in with a token of this cluster, as kubectl would use it. All that you see and change here is seen and changed with its rights; the session ends with it.", "Войдите с токеном этого кластера, таким же, как у kubectl. Всё, что вы здесь видите и меняете, делается с его правами; сеанс кончается вместе с ним."),
    ("sign-in-provider-how", "Sign in at", "Войдите через"),
    ("onward", "Go on", "Дальше"),
    ("token", "Token", "Токен"),
    ("namespaces-wanted", "Namespaces, if you may not look into all", "Пространства имён, если вам видны не все"),
    ("trouble-reading", "Not all can be read, or it is old:", "Не всё удаётся прочитать, или данные устарели:"),
    ("sign-in-ready", "This link signs this browser in for up to eight hours, and is used up by it.", "Эта ссылка впустит браузер не более чем на восемь часов и больше не сработает."),
    ("sign-out", "Sign out", "Выйти"),
    ("service", "Service", "Сервис"),
    ("choose-service", "Choose a service", "Выберите сервис"),
    ("go", "Go", "Перейти"),
    ("signing", "Signing", "Подпись"),
    ("verification", "Verification", "Проверка"),
    ("decisions-per-second", "Decisions/s", "Решений/с"),
    ("denials-per-second", "Denials/s", "Отказов/с"),
    ("sessions", "Sessions", "Сеансов"),
    ("sidecars", "Sidecars", "Сайдкары"),
    ("version", "Version", "Версия"),
    ("generation", "Generation", "Поколение"),
    ("on", "on", "включена"),
    ("off", "off", "выключена"),
    ("observe", "observe", "наблюдение"),
    ("no-sidecar", "no sidecar", "нет сайдкара"),
    ("no-answer", "does not answer", "не отвечает"),
    ("everywhere", "Turn verification on everywhere", "Включить проверку везде"),
    ("everywhere-already", "Verification is on everywhere.", "Проверка включена везде."),
    ("settings", "Settings", "Настройки"),
    ("saved", "Saved", "Сохранено"),
    ("set-to", "Set to", "Установить"),
    ("change", "Change", "Изменить"),
    ("refresh-tokens", "Refresh tokens", "Обновить токены"),
    ("tokens-not-before", "Tokens are void if issued before", "Недействительны токены, выданные до"),
    ("never-refreshed", "never refreshed", "не обновлялись"),
    ("confirm", "Confirm", "Подтвердить"),
    ("cancel", "Cancel", "Отмена"),
    ("confirm-title", "Please confirm", "Подтвердите"),
    ("means-sign-true", "Outbound sidecars of this service attach its token to every connection and request.", "Исходящие сайдкары сервиса прикладывают его токен к каждому соединению и запросу."),
    ("means-sign-false", "Outbound sidecars of this service attach no token: wherever verification is on, it is refused.", "Исходящие сайдкары сервиса не прикладывают токен: там, где проверка включена, ему откажут."),
    ("means-verify-true", "Everyone must show a token, and may do only what its role allows. What is not allowed is denied, on open connections, too; sessions that did more meanwhile end.", "Все обязаны предъявить токен и могут лишь то, что разрешает роль. Остальное отклоняется, в том числе на открытых соединениях; сеансы, сделавшие тем временем больше, завершаются."),
    ("means-verify-observe", "Nothing is denied any more. What would be denied is recorded.", "Ничего больше не отклоняется. То, что было бы отклонено, записывается."),
    ("means-verify-false", "Nothing is denied, and nobody needs a token: whoever reaches the sidecar may do all that its database login may. Only what callers with a token do is still recorded.", "Ничего не отклоняется, и токен никому не нужен: кто достучался до сайдкара, может всё, что может его учётная запись в базе. Записывается лишь то, что делают предъявившие токен."),
    ("means-refresh", "Every token issued before now is void. Sidecars fetch new ones at once; open sessions go on with those, under the rights of now.", "Все ранее выданные токены станут недействительны. Сайдкары сразу получат новые; открытые сеансы продолжатся с ними и с нынешними правами."),
    ("means-everywhere", "Verification is turned on for these services:", "Проверка будет включена у сервисов:"),
    ("pods", "Pods", "Поды"),
    ("pod", "Pod", "Под"),
    ("goes-by-it", "taken up", "применено"),
    ("not-yet", "not yet", "ещё нет"),
    ("state", "State", "Состояние"),
    ("who-has-which-role", "Who has which role", "У кого какая роль"),
    ("nobody", "Nobody has a role.", "Ролей нет ни у кого."),
    ("subject", "Subject", "Субъект"),
    ("role", "Role", "Роль"),
    ("by-grant", "By the grant", "По назначению"),
    ("history", "History", "История"),
    ("no-history", "No change was made here.", "Здесь изменений не делали."),
    ("time", "Time", "Время"),
    ("by", "By", "Кто"),
    ("from", "From", "Было"),
    ("to", "To", "Стало"),
    ("live-decisions", "Live decisions", "Решения вживую"),
    ("verdict", "Verdict", "Вердикт"),
    ("allow", "allowed", "разрешено"),
    ("deny", "denied", "отказано"),
    ("would-deny", "would be denied", "было бы отказано"),
    ("needs", "Needs", "Нужно"),
    ("reason", "Reason", "Причина"),
    ("passed-over", "more were not shown", "не показано"),
    ("gap", "More was decided in between than this page can follow: the decision log has all.", "За это время решений было больше, чем успевает страница: все они в журнале решений."),
    ("stale", "What is shown here is old: the console does not answer, or you are not signed in any more. Load the page again.", "Показанное здесь устарело: консоль не отвечает или вы больше не вошли. Загрузите страницу снова."),
    ("all", "all", "все"),
    ("filter", "Filter", "Отобрать"),
    ("id", "Id", "Номер"),
    ("what-would-allow", "What would allow it", "Что это разрешит"),
    ("draft-grant", "Draft these documents", "Составить документы"),
    ("decision-gone", "This decision is not kept any more: the sidecars remember the last ones only. See the decision log.", "Это решение больше не хранится: сайдкары помнят только последние. Смотрите журнал решений."),
    ("mistakes", "Not understood", "Не понято"),
    ("conflict", "Somebody else has changed this meanwhile", "Тем временем это изменил кто-то другой"),
    ("conflict-what", "Nothing of yours is saved. Look at what is there now, and decide again.", "Ваше изменение не сохранено. Посмотрите, что там теперь, и решите заново."),
    ("back", "Back", "Назад"),
    ("roles", "Roles", "Роли"),
    ("grants", "Grants", "Назначения"),
    ("name", "Name", "Имя"),
    ("namespace", "Namespace", "Пространство имён"),
    ("opens", "Opens", "Открывает"),
    ("for-whom", "For", "Кому"),
    ("new-grant", "New grant", "Новое назначение"),
    ("new-role", "New role", "Новая роль"),
    ("new-documents", "New documents", "Новые документы"),
    ("document", "Document", "Документ"),
    ("save", "Save", "Сохранить"),
    ("delete", "Delete", "Удалить"),
    ("dry-run", "What would this have changed in the last hour?", "Что это изменило бы за последний час?"),
    ("dry-run-none", "Nothing: of the decisions of the last hour that are kept, none would be another.", "Ничего: ни одно из сохранённых решений за последний час не стало бы другим."),
    ("dry-run-looked-at", "Decisions looked at", "Просмотрено решений"),
    ("newly-denied", "newly denied", "стало бы отказано"),
    ("newly-allowed", "newly allowed", "стало бы разрешено"),
    ("count", "Count", "Число"),
    ("valid", "This is right.", "Всё верно."),
    ("errors", "This is not right:", "Есть ошибки:"),
    ("saved-note", "Saved. The issuer follows within a second; open sessions go by it with their next token.", "Сохранено. Издатель учтёт это в течение секунды; открытые сеансы — со следующим токеном."),
    ("deleted-note", "Deleted.", "Удалено."),
    ("broken-documents", "The documents are not right; the issuer goes by the last ones that were:", "В документах ошибки; издатель действует по последним верным:"),
    ("grant-form", "Grant roles", "Назначить роли"),
    ("service-account", "Service account", "Сервисный аккаунт"),
    ("its-namespace", "Its namespace", "Его пространство имён"),
    ("roles-comma", "Roles, with commas between", "Роли через запятую"),
    ("make-draft", "Make a draft", "Составить черновик"),
    ("keys", "Signing keys", "Ключи подписи"),
    ("key-id", "Key id", "Идентификатор ключа"),
    ("algorithm", "Algorithm", "Алгоритм"),
    ("published", "Published keys", "Опубликованные ключи"),
    ("exchanges", "Token exchanges", "Обмены токенов"),
    ("result", "Result", "Итог"),
    ("total", "Total", "Всего"),
    ("metric", "Metric", "Показатель"),
    ("value", "Value", "Значение"),
    ("issuer-away", "The issuer does not answer:", "Издатель не отвечает:"),
    ("rotation", "Rotation", "Ротация"),
    ("done-unrecorded", "This change is made, and in force, but it could not be recorded. See the console's log.", "Изменение сделано и действует, но записать его в журнал не удалось. Смотрите журнал консоли."),
    ("there-now", "What is there now:", "Что там теперь:"),
    ("yours", "Yours, which is not saved:", "Ваше, не сохранено:"),
    ("refuse-record", "This change cannot be recorded now, so it is not made. See the console's log.", "Изменение сейчас нельзя записать в журнал, поэтому оно не сделано. Смотрите журнал консоли."),
    ("forbidden-form", "This form is not of your session, or did not come from this page. Go back, load the page again and repeat it.", "Эта форма не из вашего сеанса или отправлена не с этой страницы. Вернитесь, обновите страницу и повторите."),
    ("not-found", "There is no such page.", "Такой страницы нет."),
    ("failed", "That did not work", "Не получилось"),
    ("operation", "Operation", "Операция"),
    ("light", "light (INSERT)", "лёгкие (INSERT)"),
    ("heavy", "heavy (aggregate)", "тяжёлые (агрегат)"),
    ("select", "select by key", "выборка по ключу"),
    ("mixed", "mixed", "смешанные"),
    ("requests", "Requests", "Запросов"),
    ("connections", "Connections", "Соединений"),
    ("repetitions", "Repetitions", "Повторений"),
    ("start", "Start", "Начать"),
    ("stop", "Stop", "Остановить"),
    ("running", "Running", "Идёт замер"),
    ("progress", "Progress", "Ход"),
    ("results", "Results", "Результаты"),
    ("no-results", "No benchmark was run yet.", "Замеров ещё не было."),
    ("chart-of", "Time of a request, authorization on against off", "Время запроса: авторизация включена и выключена"),
    ("download-csv", "Download CSV", "Скачать CSV"),
    ("benchmark-none", "No ground for a benchmark is configured (platform.local.benchmark).", "Не указано, на чём измерять (platform.local.benchmark)."),
    ("benchmark-what", "Switches signing and verification of the measured service while it runs, and puts them back.", "Во время замера переключает подпись и проверку измеряемого сервиса, затем возвращает как было."),
];

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    /// Every key that templates and code name.
    fn used() -> Vec<String> {
        let mut keys = Vec::new();
        let roots =
            ["templates/console", "src/console"].map(|dir| std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(dir));
        let files = roots.iter().flat_map(|dir| std::fs::read_dir(dir).unwrap()).map(|entry| entry.unwrap().path());
        for file in files.filter(|file| file.is_file()) {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            for piece in text.split("t(\"").skip(1) {
                keys.extend(piece.split_once("\")").map(|(key, _)| key.to_owned()));
            }
        }
        keys.retain(|key| key.chars().all(|c| c.is_ascii_lowercase() || c == '-'));
        keys
    }

    #[test]
    fn every_key_has_both_texts_once() {
        for (index, (key, english, russian)) in WORDS.iter().enumerate() {
            assert!(!english.is_empty() && !russian.is_empty(), "{key}");
            assert!(!WORDS[..index].iter().any(|(other, ..)| other == key), "{key} twice");
            assert!(russian.chars().any(|c| ('а'..='я').contains(&c)), "{key} is not Russian");
        }
    }

    #[test]
    fn every_key_that_pages_name_is_there() {
        let used = used();
        assert!(used.len() > 50, "{used:?}");
        for key in used {
            assert!(!Language::English.text(&key).is_empty(), "{key}");
        }
    }

    #[test]
    fn the_language_is_the_chosen_one_or_the_browsers() {
        let headers = |pairs: &[(header::HeaderName, &'static str)]| {
            pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect::<HeaderMap>()
        };
        assert_eq!(Language::of(&headers(&[])), Language::English);
        assert_eq!(
            Language::of(&headers(&[(header::ACCEPT_LANGUAGE, "de, ru-RU;q=0.9, en;q=0.8")])),
            Language::Russian
        );
        let both = [(header::ACCEPT_LANGUAGE, "ru"), (header::COOKIE, "a=b; sidegate_language=en")];
        assert_eq!(Language::of(&headers(&both)), Language::English);
    }
}
